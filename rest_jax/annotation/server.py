"""The page and its calls, as an ASGI application, and the server around it.

    GET  /                 sign in, or rate
    GET  /api/task         ?place=N, or the first that is not done
    POST /api/sign_in      {rater}
    POST /api/sign_out     {}
    POST /api/rate         {submission_id, rater, candidate_id, rating}
    POST /api/undo         {submission_id, rater}

Raters get texts and digests, never a system, a reward or another rater's rating.
"""

import functools
import importlib.resources
import re
import socket
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import jinja2

from rest_jax.annotation import database as database_lib
from rest_jax.annotation import guard, order
from rest_jax.annotation import protocol as protocol_lib
from rest_jax.report import style

if TYPE_CHECKING:
  from starlette.requests import Request
  from starlette.responses import Response
  from starlette.types import ASGIApp

MAX_NAME_CHARACTERS = 40
_SUBMISSION_ID = re.compile(r'[0-9a-f]{32}')
_YEAR_S = 365 * 86_400


class Mistake(Exception):
  """What the sender did wrong: becomes status 400."""


def rater_name(text: object) -> str:
  """A rater's name as it is kept: lower case, single spaces.

  Raises:
    Mistake: it is empty, too long, or holds other than letters, digits, ' ._-'.
  """
  name = ' '.join(text.split()).casefold() if isinstance(text, str) else ''
  plain = all(c.isalnum() or c in ' ._-' for c in name)
  if not 0 < len(name) <= MAX_NAME_CHARACTERS or not plain:
    raise Mistake(
      f'A name has 1 to {MAX_NAME_CHARACTERS} letters, digits, spaces, dots or hyphens.'
    )
  return name


class Study:
  """A database with the order of its tasks for each rater."""

  def __init__(
    self, database: database_lib.Database, protocol: protocol_lib.Protocol, *, seed: int
  ):
    self.database = database
    self.protocol = protocol
    self._sources = database.items().sources
    self._seed = seed
    self.tasks = functools.lru_cache(maxsize=64)(self._tasks)

  def _tasks(self, rater: str) -> list[order.Task]:
    view = self.protocol.view
    return order.tasks(self._sources, rater=rater, seed=self._seed, view=view)

  def state(self, rater: str, place: int | None) -> dict[str, Any]:
    """What the page shows a rater: progress, and a task or None when all are done.

    Args:
      rater: the rater's name.
      place: of the task to show; None for the first that is not done.
    """
    tasks = self.tasks(rater)
    ratings = self.database.ratings_of(rater)
    done = [all(c.candidate_id in ratings for c in t.candidates) for t in tasks]
    if place is None:
      place = done.index(False) if not all(done) else len(tasks)
    place = max(0, min(place, len(tasks)))
    shown: dict[str, Any] = {
      'rater': rater,
      'place': place,
      'total': len(tasks),
      'done': sum(done),
      'task': None,
    }
    if place < len(tasks):
      task = tasks[place]
      reference = task.source.reference if self.protocol.show_reference else None
      shown['task'] = {
        'source': task.source.source,
        'reference': reference,
        'candidates': [
          {
            'id': c.candidate_id,
            'text': c.text,
            'rating': ratings.get(c.candidate_id),
          }
          for c in task.candidates
        ],
      }
    return shown

  def place_of(self, rater: str, candidate_id: str) -> int:
    """The place of the rater's task that shows a candidate."""
    for place, task in enumerate(self.tasks(rater)):
      if any(c.candidate_id == candidate_id for c in task.candidates):
        return place
    raise AssertionError(f'{candidate_id} was rated, so some task shows it')


def make_app(study: Study, rules: guard.Access) -> 'ASGIApp':
  """The application, behind its guard."""
  from starlette.applications import Starlette
  from starlette.concurrency import run_in_threadpool
  from starlette.responses import HTMLResponse, JSONResponse, Response
  from starlette.routing import Route

  cookie = f'{rules.cookie}_rater'
  scripts = {
    'annotate.js': ('text/javascript', _asset('annotate.js')),
    'annotate.css': ('text/css', _colours() + _asset('annotate.css')),
  }

  def signed_in(request: 'Request') -> str | None:
    kept = urllib.parse.unquote(request.cookies.get(cookie, ''))
    try:
      return rater_name(kept)
    except Mistake:
      return None

  async def asset(request: 'Request') -> 'Response':
    kind, text = scripts[request.url.path.removeprefix('/')]
    return Response(text, media_type=kind)

  async def page(request: 'Request') -> 'Response':
    rendered = _template().render(
      rater=signed_in(request),
      study=rules.cookie,
      protocol=study.protocol,
      scale=range(database_lib.MAX_RATING + 1),
      max_name=MAX_NAME_CHARACTERS,
    )
    return HTMLResponse(rendered)

  async def task(request: 'Request') -> 'Response':
    rater = signed_in(request)
    if rater is None:
      return JSONResponse({'error': 'Sign in first.'}, 401)
    asked = request.query_params.get('place')
    if asked is not None and not re.fullmatch(r'\d{1,9}', asked):
      return JSONResponse({'error': f'place {asked!r} is not a number'}, 400)
    place = None if asked is None else int(asked)
    return JSONResponse(await run_in_threadpool(study.state, rater, place))

  async def sign_in(request: 'Request') -> 'Response':
    rater = rater_name((await _body(request)).get('rater'))
    response = JSONResponse({'rater': rater})
    response.set_cookie(
      cookie,
      urllib.parse.quote(rater),
      max_age=_YEAR_S,
      httponly=True,
      samesite='lax',
      secure=request.url.scheme == 'https',
    )
    return response

  async def sign_out(request: 'Request') -> 'Response':
    response = JSONResponse({})
    response.delete_cookie(cookie, httponly=True, samesite='lax')
    return response

  async def rate(request: 'Request') -> 'Response':
    rater, body = await submission(request)
    await run_in_threadpool(
      study.database.rate,
      body['submission_id'],
      rater=rater,
      candidate_id=str(body.get('candidate_id')),
      rating=cast(int, body.get('rating')),  # checked there, whatever it is
    )
    return JSONResponse({'saved': True})

  async def undo(request: 'Request') -> 'Response':
    rater, body = await submission(request)
    candidate = await run_in_threadpool(
      study.database.undo, body['submission_id'], rater=rater
    )
    place = None if candidate is None else study.place_of(rater, candidate)
    return JSONResponse({'candidate_id': candidate, 'place': place})

  async def submission(request: 'Request') -> tuple[str, dict[str, Any]]:
    """Who sends it, and what; the page says too for whom it was meant."""
    body = await _body(request)
    rater = signed_in(request)
    if rater is None or body.get('rater') != rater:
      raise database_lib.Conflict(
        f'You are signed in as {rater or "nobody"} in another window. Reload the page.'
      )
    if not _SUBMISSION_ID.fullmatch(str(body.get('submission_id'))):
      raise Mistake('submission_id must be 32 hexadecimal digits')
    return rater, body

  def answering(handler: Callable[['Request'], Awaitable['Response']]) -> Any:
    """The handler, with its exceptions as answers."""

    @functools.wraps(handler)
    async def answer(request: 'Request') -> 'Response':
      try:
        return await handler(request)
      except database_lib.Conflict as error:
        return JSONResponse({'error': str(error)}, 409)
      except (Mistake, ValueError) as error:
        return JSONResponse({'error': str(error)}, 400)

    return answer

  app = Starlette(
    routes=[
      Route('/', page),
      *(Route(f'/{name}', asset) for name in scripts),
      Route('/api/task', task),
      Route('/api/sign_in', answering(sign_in), methods=['POST']),
      Route('/api/sign_out', answering(sign_out), methods=['POST']),
      Route('/api/rate', answering(rate), methods=['POST']),
      Route('/api/undo', answering(undo), methods=['POST']),
    ]
  )
  return guard.guarded(app, rules)


async def _body(request: 'Request') -> dict[str, Any]:
  """The request's JSON object."""
  try:
    body = await request.json()
  except (ValueError, RecursionError) as error:
    raise Mistake('the body is not JSON') from error
  if not isinstance(body, dict):
    raise Mistake('the body must be a JSON object')
  return body


def _asset(name: str) -> str:
  templates = importlib.resources.files('rest_jax.annotation') / 'templates'
  return (templates / name).read_text(encoding='utf-8')


def _colours() -> str:
  """The report's palette, light and dark."""
  dark = (
    f'@media (prefers-color-scheme: dark) {{ :root {{ {style.css_variables(1)} }} }}'
  )
  return f':root {{ color-scheme: light dark; {style.css_variables(0)} }}\n{dark}\n'


@functools.cache
def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('rest_jax.annotation', 'templates'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  return environment.get_template('annotate.html.j2')


def serve(
  app: 'ASGIApp', *, host: str, port: int, ready: Callable[[int], None]
) -> None:
  """Serves until Ctrl-C.

  Args:
    app: what `make_app` gives.
    host: the address to listen on.
    port: 0 takes a free one.
    ready: called with the port once connections are taken.

  Raises:
    ValueError: the address cannot be listened on.
  """
  import uvicorn

  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  with socket.socket(family, socket.SOCK_STREAM) as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      listener.bind((host.strip('[]'), port))
      listener.listen(128)
    except OSError as error:
      raise ValueError(
        f'cannot listen on {host}:{port} ({error.strerror or error}): choose another '
        'ANNOTATION_PORT (0 takes a free one) or ANNOTATION_HOST'
      ) from error
    ready(listener.getsockname()[1])
    # No access log: it would hold the token, and raters' habits.
    config = uvicorn.Config(
      app, log_level='warning', access_log=False, server_header=False
    )
    uvicorn.Server(config).run(sockets=[listener])
