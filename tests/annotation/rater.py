"""A rater at the page, without a browser: the calls that the page would make.

Needs starlette and httpx2, which its test client speaks through.
"""

import uuid

from starlette import testclient

BASE = 'http://127.0.0.1:8765'


class Rater:
  """A browser signed in under a name."""

  def __init__(self, app, name, base=BASE):
    self.client = testclient.TestClient(app, base_url=base, follow_redirects=False)
    self.client.headers['origin'] = base
    self.name = name
    if name is not None:
      assert self.post('/api/sign_in', rater=name).status_code == 200

  def post(self, path, **body):
    return self.client.post(path, json=body)

  def task(self, place=None):
    return self.client.get(
      '/api/task', params={} if place is None else {'place': place}
    )

  def rate(self, candidate_id, rating, submission_id=None, rater=None):
    return self.post(
      '/api/rate',
      submission_id=submission_id or uuid.uuid4().hex,
      rater=rater or self.name,
      candidate_id=candidate_id,
      rating=rating,
    )

  def undo(self, submission_id=None):
    given = submission_id or uuid.uuid4().hex
    return self.post('/api/undo', submission_id=given, rater=self.name)
