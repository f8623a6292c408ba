"""A gs:// of this machine: Google's JSON API as gcp-storage-emulator has it, in memory.

  python -m tests.gs_store PORT

TensorStore and gcsfs ask for more than the emulator has: that an object is written or
read on a condition of its generation, that reads tell it, listings between two names,
and moves. That is added here.
"""

import json
import sys
from http import HTTPStatus

from gcp_storage_emulator import exceptions, server
from gcp_storage_emulator.handlers import objects

BUCKET = 'bucket'


def environment(port):
  """What makes gcsfs, Orbax and TensorStore talk to it."""
  url = f'http://127.0.0.1:{port}'
  return {
    'STORAGE_EMULATOR_HOST': url,
    'TENSORSTORE_GCS_HTTP_URL': url,
    'GOOGLE_CLOUD_PROJECT': 'test',
  }


def _name(request):
  if 'object_id' in (request.params or {}):
    return request.params['object_id']
  if request.query.get('uploadType') == ['multipart']:
    return request.data['meta'].get('name')
  return _argument(request, 'name')


def _argument(request, key):
  return (request.query.get(key) or [None])[0]


def _generation(request, storage):
  """Of the object that a request is about; '0' where there is none."""
  try:
    found = storage.get_file_obj(request.params['bucket_name'], _name(request))
  except exceptions.NotFound:
    return '0'
  return found['generation']


def _conditional(handler):
  def handle(request, response, storage, *arguments, **options):
    present = _generation(request, storage)
    if _argument(request, 'ifGenerationMatch') not in (None, present):
      response.status = HTTPStatus.PRECONDITION_FAILED
      return None
    if _argument(request, 'ifGenerationNotMatch') == present:
      gone = present == '0'
      response.status = HTTPStatus.NOT_FOUND if gone else HTTPStatus.NOT_MODIFIED
      return None
    if present != '0':
      response['x-goog-generation'] = present
    return handler(request, response, storage, *arguments, **options)

  return handle


def _between(handler):
  def handle(request, response, storage, *arguments, **options):
    handler(request, response, storage, *arguments, **options)
    start, end = _argument(request, 'startOffset'), _argument(request, 'endOffset')
    found = json.loads(response._content)
    found['items'] = [
      item
      for item in found.get('items', [])
      if item['name'] >= (start or '') and (end is None or item['name'] < end)
    ]
    response._content = json.dumps(found)

  return handle


def _move(request, response, storage, *arguments, **options):
  request.params['dest_bucket_name'] = request.params['bucket_name']
  objects.copy(request, response, storage, *arguments, **options)
  storage.delete_file(request.params['bucket_name'], request.params['object_id'])


def _complete():
  """Adds to the emulator's handlers what it lacks."""
  conditional = {objects.get, objects.download, objects.insert, objects.delete}
  for _, handlers in server.HANDLERS:
    for method, handler in handlers.items():
      if handler in conditional:
        handlers[method] = _conditional(handler)
      elif handler is objects.ls:
        handlers[method] = _between(handler)
  path = r'/b/(?P<bucket_name>[-.\w]+)/o/(?P<object_id>.+)/moveTo/o/'
  moves = (rf'^/storage/v1{path}(?P<dest_object_id>.+)$', {'POST': _move})
  server.HANDLERS = (moves, *server.HANDLERS)


if __name__ == '__main__':
  _complete()
  server.create_server(
    '127.0.0.1', int(sys.argv[1]), in_memory=True, default_bucket=BUCKET
  ).run()
