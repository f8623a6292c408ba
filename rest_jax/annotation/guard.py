"""What stands before the page: who may ask, from where, and how much they may send.

Loopback alone is open, and only under its own names (a foreign name that resolves to
127.0.0.1 is a rebinding attack). Anywhere else a token is needed: once in the address,
`/?token=...`, then in a cookie. Whatever changes something has to come from the page
itself (Origin), as JSON, and be small.
"""

import dataclasses
import hmac
import ipaddress
import secrets
import urllib.parse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from starlette.requests import Request
  from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 4096
MIN_TOKEN_CHARACTERS = 16
LOOPBACK_NAMES = ('localhost', '127.0.0.1', '[::1]')
HEADERS = {
  # Nothing but the page's own two files, and its own calls.
  'content-security-policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  ),
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
}


@dataclasses.dataclass(frozen=True)
class Access:
  """Who may use the page.

  Attributes:
    loopback: whether the server can be reached from this machine alone.
    token: that has to be shown; None on loopback alone.
    cookie: the name of the token's cookie, one for each study, since cookies do not
      tell the ports of a machine apart.
  """

  loopback: bool
  token: str | None
  cookie: str


def access(host: str, token: str | None, *, study: str) -> Access:
  """The rules for a server that listens on `host`.

  Args:
    host: an address or a name.
    token: the user's own; None makes one up where one is needed.
    study: a short name for the cookie.

  Raises:
    ValueError: a token that is too short to be secret.
  """
  loopback = is_loopback(host)
  if token is not None and len(token) < MIN_TOKEN_CHARACTERS:
    raise ValueError(
      f'the token has {len(token)} characters and can be guessed: give at least '
      f'{MIN_TOKEN_CHARACTERS}, or None to have one made'
    )
  if token is None and not loopback:
    token = secrets.token_urlsafe(24)
  return Access(loopback, token, f'rest_jax_{study}')


def is_loopback(host: str) -> bool:
  """Whether only this machine reaches a server that listens on `host`."""
  if host == 'localhost':
    return True
  try:
    return ipaddress.ip_address(host.strip('[]')).is_loopback
  except ValueError:
    return False


def guarded(app: 'ASGIApp', rules: Access) -> 'ASGIApp':
  """The application behind the rules, its answers with HEADERS."""
  from starlette.requests import Request
  from starlette.responses import JSONResponse, RedirectResponse

  async def guard(scope: 'Scope', receive: 'Receive', send: 'Send') -> None:
    if scope['type'] != 'http':
      await app(scope, receive, send)
      return

    async def send_with_headers(message: 'Message') -> None:
      if message['type'] == 'http.response.start':
        added = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
        message = {**message, 'headers': [*message['headers'], *added]}
      await send(message)

    request = Request(scope, receive)
    refusal = _refusal(request, rules)
    if refusal is not None:
      status, reason = refusal
      answer = JSONResponse({'error': reason}, status)
      await answer(scope, receive, send_with_headers)
      return
    if request.method == 'GET' and 'token' in request.query_params and rules.token:
      # Out of the address bar and the history. Lax, since a strict cookie would not
      # come along when the address is opened from a message; Origin guards the rest.
      redirect = RedirectResponse('/', 303)
      redirect.set_cookie(
        rules.cookie,
        rules.token,
        max_age=30 * 86_400,
        httponly=True,
        samesite='lax',
        secure=request.url.scheme == 'https',
      )
      await redirect(scope, receive, send_with_headers)
      return
    if request.method == 'POST':
      body = await _read_body(request)
      if body is None:
        reason = f'the body is larger than {MAX_BODY_BYTES} bytes'
        too_large = JSONResponse({'error': reason}, 413)
        await too_large(scope, receive, send_with_headers)
        return
      receive = _replay(body)
    await app(scope, receive, send_with_headers)

  return guard


def _refusal(request: 'Request', rules: Access) -> tuple[int, str] | None:
  """(status, reason) for what may not pass, or None."""
  host = request.headers.get('host', '')
  if rules.loopback and _name(host) not in LOOPBACK_NAMES:
    return 403, f'this server answers to {", ".join(LOOPBACK_NAMES)} alone'
  if rules.token is not None:
    given = request.cookies.get(rules.cookie)
    if request.method == 'GET':
      given = request.query_params.get('token', given)
    if not _same(given, rules.token):
      return 403, 'open the address with its token: /?token=...'
  if request.method == 'POST':
    origin = urllib.parse.urlsplit(request.headers.get('origin', ''))
    if not origin.netloc or origin.netloc.lower() != host.lower():
      return 403, 'only the page itself may send this'
    kind = request.headers.get('content-type', '').split(';')[0].strip().lower()
    if kind != 'application/json':
      return 415, 'send application/json'
  return None


def _same(given: str | None, token: str) -> bool:
  """Compares in constant time."""
  return hmac.compare_digest((given or '').encode(), token.encode())


def _name(host: str) -> str:
  """The Host header without its port."""
  if host.startswith('['):
    return host[: host.find(']') + 1].lower()
  return host.split(':')[0].lower()


async def _read_body(request: 'Request') -> bytes | None:
  """The body, or None where it is too large; no more of it is kept than the limit."""
  length = request.headers.get('content-length', '')
  if length.isdigit() and int(length) > MAX_BODY_BYTES:
    return None
  body = b''
  async for chunk in request.stream():
    body += chunk
    if len(body) > MAX_BODY_BYTES:
      return None
  return body


def _replay(body: bytes) -> Any:
  async def receive() -> dict[str, Any]:
    return {'type': 'http.request', 'body': body, 'more_body': False}

  return receive
