"""German verbs: principal parts, government, English patterns, usage.

A row reads `parts | frame | english | places | flags`.

* parts: `w infinitive` for a weak verb, otherwise `infinitive er-present
  preterite participle`; a separable prefix ends in `_`; `+s` takes sein in the
  perfect; `sich` first makes the verb reflexive (accusative).
* frame: `-` intransitive; `a:classes`, `d:persons`, `da:classes` (dative person
  and accusative thing), `p:auf+a:classes` (prepositional object), `f:words`
  (fixed words at the end of the middle field), `dir` (direction).
* english: patterns separated by `/`; `{}` places the object, otherwise it
  follows; for `da`, `{d}` and `{a}`.
* places: the group of locations that fit, or `-`.
* flags: O not a habit (no 'every day');
  S stative (simple present only, no perfect), P allows the perfect in
  spite of S, X no plain present (finden, verlieren), H simple present is the
  canonical reading, N no modal and no imperative, T no
  pronoun for the thing.

Rows stand in order of frequency inside a frame kind.
"""

import dataclasses

from rest_jax.data.everyday import morphology


@dataclasses.dataclass(frozen=True)
class Verb:
  """One verb sense with its German conjugation and English patterns."""

  german: morphology.Conjugation
  reflexive: bool
  frame: str
  preposition: str
  case: str  # of the prepositional object
  object_classes: tuple[str, ...]
  fixed: str
  english: tuple[tuple[str, str], ...]  # (head, tail); the tail holds %s or {d} {a}
  moves_particle: tuple[bool, ...]  # the object stands inside the pattern
  places: str
  flags: str

  @property
  def is_stative(self) -> bool:
    """Whether English has no progressive: know, need."""
    return 'S' in self.flags


_TABLE = """
w kaufen | a:food drink printed | buy | shop |
w kaufen | a:clothes device thing vehicle | buy | shop | O
lesen liest las gelesen | a:readable | read | read |
essen isst aß gegessen | a:food | eat | eat |
trinken trinkt trank getrunken | a:drink | drink | eat |
sehen sieht sah gesehen | a:persons animal | see | meet | SPN
w besuchen | a:persons | visit | - |
w suchen | a:owned thing small | look for | - | T
finden findet fand gefunden | a:owned thing | find | meet | XOT
w brauchen | a:owned device clothes thing | need | - | SPNT
schreiben schreibt schrieb geschrieben | a:writable | write | read |
an_rufen ruft_an rief_an angerufen | a:persons | call/phone | - |
treffen trifft traf getroffen | a:persons | meet | meet | X
w kochen | a:dish | cook | home |
sehen sieht sah gesehen | a:show | watch/see | watch | T
w hören | a:sound song | listen to | home |
w spielen | a:sport | play | play |
w spielen | a:instrument | play | home |
kennen kennt kannte gekannt | a:persons town | know | - | SN
w machen | a:chore | do | home |
verstehen versteht verstand verstanden | a:persons question idea text | \
  understand | - | SPNT
vergessen vergisst vergaß vergessen | a:owned idea | forget | home | XT
verlieren verliert verlor verloren | a:owned bag | lose | meet | XNT
w bestellen | a:food drink clothes | order | eat |
w lernen | a:language | learn/study | learn |
sprechen spricht sprach gesprochen | a:language | speak | - | SHPN
w ab_holen | a:persons | pick {} up/pick up {} | - |
ein_laden lädt_ein lud_ein eingeladen | a:persons | invite | - |
w fragen | a:persons | ask | - |
w lieben | a:persons town | love | - | SN
w öffnen | a:openable | open | - |
schließen schließt schloss geschlossen | a:opening | close/shut | - |
w auf_machen | a:openable | open | - |
w zu_machen | a:opening | close/shut | - |
w an_machen | a:switchable | turn on/turn {} on | - |
w aus_machen | a:switchable | turn off/turn {} off | - |
w ein_schalten | a:switchable | turn on/switch on | - |
w aus_schalten | a:switchable | turn off/switch off | - |
w reparieren | a:vehicle device | repair/fix | - | O
w verkaufen | a:vehicle building device furniture | sell | - | O
w putzen | a:room window | clean | - |
w auf_räumen | a:room | tidy up/clean up | - |
waschen wäscht wusch gewaschen | a:clothes auto | wash | - |
tragen trägt trug getragen | a:clothes | wear | - | T
tragen trägt trug getragen | a:bag | carry | - | T
w benutzen | a:device vehicle | use | - |
w bezahlen | a:bills | pay | - | T
w bezahlen | a:purchase | pay for | - | T
nehmen nimmt nahm genommen | a:transit | take | - |
mit_bringen bringt_mit brachte_mit mitgebracht | a:food drink thing | bring | - |
w holen | a:bag thing drink | get/fetch | - | T
an_ziehen zieht_an zog_an angezogen | a:clothes | put on/put {} on | - |
aus_ziehen zieht_aus zog_aus ausgezogen | a:clothes | take off/take {} off | - |
backen backt backte gebacken | a:baked | bake | home |
w probieren | a:food drink | try | - |
w packen | a:bag | pack | - |
w beantworten | a:answerable | answer | - |
w lösen | a:solvable | solve | - | O
w planen | a:event | plan | - | O
w mieten | a:flat auto | rent | - | O
w füttern | a:animal | feed | - |
w malen | a:picture | paint | play |
w studieren | a:subject | study | study | H
singen singt sang gesungen | a:song | sing | play |
w begrüßen | a:persons | greet/welcome | - |
w feiern | a:feast | celebrate | home | O
übersetzen übersetzt übersetzte übersetzt | a:readable | translate | - |
schneiden schneidet schnitt geschnitten | a:food | cut | - |
helfen hilft half geholfen | d:persons | help | - |
w danken | d:persons | thank | - |
w antworten | d:persons | answer/reply to | - |
w glauben | d:persons | believe | - | SN
w zu_hören | d:persons | listen to | - |
w vertrauen | d:persons | trust | - | SN
w gratulieren | d:persons | congratulate | - |
folgen folgt folgte gefolgt +s | d:persons | follow | - |
geben gibt gab gegeben | da:thing printed drink food owned | \
  give {d} {a}/give {a} to {d} | - |
w zeigen | da:printed thing room town | show {d} {a}/show {a} to {d} | - | O
w schicken | da:mailable | send {d} {a}/send {a} to {d} | - |
bringen bringt brachte gebracht | da:drink food bag thing | \
  bring {d} {a}/bring {a} to {d} | - |
w erklären | da:question idea | explain {a} to {d} | - |
w kaufen | da:clothes thing printed food | buy {d} {a}/buy {a} for {d} | - | O
w schenken | da:clothes thing printed | give {d} {a}/give {a} to {d} | - | O
leihen leiht lieh geliehen | da:printed vehicle device | \
  lend {d} {a}/lend {a} to {d} | - |
w erzählen | da:story | tell {d} {a} | - |
schreiben schreibt schrieb geschrieben | da:mail | write {d} {a}/write {a} to {d} | - |
vor_lesen liest_vor las_vor vorgelesen | da:readable | \
  read {d} {a}/read {a} to {d} | - |
empfehlen empfiehlt empfahl empfohlen | da:readable show restaurant | \
  recommend {a} to {d} | - |
w kochen | da:dish | cook {d} {a}/cook {a} for {d} | - |
w warten | p:auf+a:persons transit | wait for | meet |
denken denkt dachte gedacht | p:an+a:persons holiday | think of/think about | - | N
sprechen spricht sprach gesprochen | p:mit+d:persons | talk to/speak with | meet |
sprechen spricht sprach gesprochen | p:über+a:question event show | talk about | - |
w telefonieren | p:mit+d:persons | talk to {} on the phone/be on the phone with | - |
w träumen | p:von+d:holiday persons home | dream of/dream about | - | N
w spielen | p:mit+d:small | play with | play |
w lachen | p:über+a:story persons | laugh about/laugh at | - | N
w sich freuen | p:auf+a:holiday | look forward to | - | HN
w sich freuen | p:über+a:thing mailable | be happy about/be pleased about | - | SN
w sich interessieren | p:für+a:topic media topic | be interested in | - | SN
w sich erinnern | p:an+a:persons holiday idea | remember | - | SN
w sich kümmern | p:um+a:small kin home | take care of/look after | - |
sich treffen trifft traf getroffen | p:mit+d:persons | meet/meet with | meet |
w sich ärgern | p:über+a:persons question weather | \
  be annoyed about/be annoyed with | - | SN
w auf_passen | p:auf+a:small bag | look after/keep an eye on | - |
teil_nehmen nimmt_teil nahm_teil teilgenommen | p:an+d:event | \
  take part in/participate in | - |
w arbeiten | p:an+d:writable solvable | work on | learn |
w suchen | p:nach+d:owned | look for/search for | - |
w tanzen | p:mit+d:persons | dance with | play |
w fragen | p:nach+d:idea | ask about | - |
w lernen | p:für+a:exam | study for/learn for | learn |
w arbeiten | - | work | work | H
schlafen schläft schlief geschlafen | - | sleep | sleep |
auf_stehen steht_auf stand_auf aufgestanden +s | - | get up | - | O
w warten | - | wait | meet |
w ein_kaufen | - | go shopping/shop | shop |
fern_sehen sieht_fern sah_fern ferngesehen | - | watch TV/watch television | home |
w frühstücken | - | have breakfast | eat |
w lernen | - | study/learn | learn |
w tanzen | - | dance | play |
singen singt sang gesungen | - | sing | play |
w lachen | - | laugh | - | N
schwimmen schwimmt schwamm geschwommen +s | - | swim | swim |
gehen geht ging gegangen +s | f:spazieren | go for a walk | outdoors |
fahren fährt fuhr gefahren +s | f:Rad | ride a bike/ride a bicycle | outdoors |
machen macht machte gemacht | f:eine Pause | take a break | meet |
machen macht machte gemacht | f:Sport | do sports/exercise | play | H
w kochen | - | cook | home |
w spielen | - | play | play |
w weinen | - | cry | - | N
w sich beeilen | - | hurry/hurry up | - | O
w sich aus_ruhen | - | rest/relax | sleep |
w duschen | - | take a shower/shower | - |
w auf_wachen +s | - | wake up | - | NO
ein_schlafen schläft_ein schlief_ein eingeschlafen +s | - | fall asleep | sleep | XNO
w rauchen | - | smoke | - | H
w joggen +s | - | jog/go jogging | outdoors |
wandern wandert wanderte gewandert +s | - | hike/go hiking | hike |
um_ziehen zieht_um zog_um umgezogen +s | - | move | - | O
zurück_kommen kommt_zurück kam_zurück zurückgekommen +s | - | come back/return | - | O
an_kommen kommt_an kam_an angekommen +s | - | arrive | arrive | O
aus_gehen geht_aus ging_aus ausgegangen +s | - | go out | - |
w telefonieren | - | be on the phone/talk on the phone | home |
w auf_hören | - | stop | - | O
an_fangen fängt_an fing_an angefangen | - | start/begin | - | O
gehen geht ging gegangen +s | dir:walk | go | - |
fahren fährt fuhr gefahren +s | dir:ride | go/drive | - |
kommen kommt kam gekommen +s | dir:walk | come | - |
fliegen fliegt flog geflogen +s | dir:fly | fly | - |
laufen läuft lief gelaufen +s | dir:walk | walk/run | - |
w reisen +s | dir:fly | travel | - |
zurück_fahren fährt_zurück fuhr_zurück zurückgefahren +s | dir:ride | \
  drive back/go back | - |
w wohnen | loc | live | live | SPN
leben lebt lebte gelebt | loc | live | live | SPN
bleiben bleibt blieb geblieben +s | loc | stay | stay |
"""


def _parse_english(pattern: str) -> tuple[str, str, bool]:
  head, _, tail = pattern.strip().partition(' ')
  if '{d}' in tail:
    return head, ' ' + tail, False
  moves = '{}' in tail and not tail.endswith('{}')
  tail = tail.replace('{}', '%s') if '{}' in tail else f'{tail} %s'.strip()
  return head, ' ' + tail, moves


def _parse_row(row: str) -> Verb:
  parts, frame, english, places, flags = (cell.strip() for cell in row.split('|'))
  words = parts.split()
  takes_sein = words[-1] == '+s'
  if takes_sein:
    words.pop()
  reflexive = 'sich' in words
  words = [word for word in words if word != 'sich']
  auxiliary = 'sein' if takes_sein else 'haben'
  if words[0] == 'w':
    german = morphology.weak(words[1], auxiliary=auxiliary)
  else:
    german = morphology.strong(*words, auxiliary=auxiliary)
  kind, _, rest = frame.partition(':')
  preposition = case = fixed = ''
  classes: tuple[str, ...] = ()
  if kind == 'p':
    government, _, listed = rest.partition(':')
    preposition, case = government.split('+')
    classes = tuple(listed.split())
  elif kind == 'f':
    fixed = rest
  else:
    classes = tuple(rest.split())
  patterns = [_parse_english(pattern) for pattern in english.split('/')]
  if kind in ('-', 'f', 'dir', 'loc'):
    patterns = [(head, tail.replace(' %s', ''), False) for head, tail, _ in patterns]
  return Verb(
    german=german,
    reflexive=reflexive,
    frame=kind,
    preposition=preposition,
    case=case,
    object_classes=classes,
    fixed=fixed,
    english=tuple((head, tail) for head, tail, _ in patterns),
    moves_particle=tuple(moves for _, _, moves in patterns),
    places='' if places == '-' else places,
    flags=flags,
  )


VERBS: tuple[Verb, ...] = tuple(_parse_row(row) for row in _TABLE.strip().splitlines())
