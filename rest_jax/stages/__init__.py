"""Stages: functions from artifacts to one artifact; they meet on disk only."""
