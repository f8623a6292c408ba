"""An s3:// of this machine, in memory: moto's.

  python -m tests.s3_store PORT

It takes any credentials. Needs the extra s3-dev.
"""

import sys

import s3fs  # noqa: F401  # whose processes are to use it
from moto import server
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3 import models

BUCKET = 'bucket'
_REGION = 'us-east-1'


def environment(port):
  """What makes s3fs talk to it."""
  return {
    'AWS_ENDPOINT_URL': f'http://127.0.0.1:{port}',
    'AWS_ACCESS_KEY_ID': 'test',
    'AWS_SECRET_ACCESS_KEY': 'test',
    'AWS_DEFAULT_REGION': _REGION,
  }


if __name__ == '__main__':
  backend = models.s3_backends[DEFAULT_ACCOUNT_ID]['aws']
  backend.create_bucket(BUCKET, _REGION)
  server.main(['--port', sys.argv[1]])
