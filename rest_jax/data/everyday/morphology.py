"""German inflection: articles, adjectives, nouns, pronouns, verbs.

Cases are numbered 0 nominative, 1 accusative, 2 dative, 3 genitive; genders are
m, f, n, and p for the plural; persons are 0 ich, 1 du, 2 er, 3 wir, 4 ihr, 5 sie.
"""

import dataclasses
import re

NOMINATIVE, ACCUSATIVE, DATIVE, GENITIVE = range(4)

# Endings of der-words (dieser, jeder, welcher) and of ein-words (ein, kein, mein).
_DER = {
  'm': ('er', 'en', 'em', 'es'),
  'f': ('e', 'e', 'er', 'er'),
  'n': ('es', 'es', 'em', 'es'),
  'p': ('e', 'e', 'en', 'er'),
}
_EIN = {
  'm': ('', 'en', 'em', 'es'),
  'f': ('e', 'e', 'er', 'er'),
  'n': ('', '', 'em', 'es'),
  'p': ('e', 'e', 'en', 'er'),
}
_DEFINITE = {
  'm': ('der', 'den', 'dem', 'des'),
  'f': ('die', 'die', 'der', 'der'),
  'n': ('das', 'das', 'dem', 'des'),
  'p': ('die', 'die', 'den', 'der'),
}
_WEAK = {
  'm': ('e', 'en', 'en', 'en'),
  'f': ('e', 'e', 'en', 'en'),
  'n': ('e', 'e', 'en', 'en'),
  'p': ('en', 'en', 'en', 'en'),
}
_MIXED = {
  'm': ('er', 'en', 'en', 'en'),
  'f': ('e', 'e', 'en', 'en'),
  'n': ('es', 'es', 'en', 'en'),
  'p': ('en', 'en', 'en', 'en'),
}
_STRONG = {
  'm': ('er', 'en', 'em', 'en'),
  'f': ('e', 'e', 'er', 'er'),
  'n': ('es', 'es', 'em', 'en'),
  'p': ('e', 'e', 'en', 'er'),
}
DER_WORDS = ('dies', 'jed', 'welch')
_CONTRACTIONS = {
  ('in', 'dem'): 'im',
  ('an', 'dem'): 'am',
  ('zu', 'dem'): 'zum',
  ('zu', 'der'): 'zur',
  ('bei', 'dem'): 'beim',
  ('von', 'dem'): 'vom',
  ('in', 'das'): 'ins',
  ('an', 'das'): 'ans',
}


def determiner(word: str, gender: str, case: int) -> str:
  """Inflects 'der', a der-word stem (dies, jed, welch) or an ein-word.

  The empty word (no article) stays empty; 'ein' has no plural.
  """
  if not word:
    return ''
  if word == 'der':
    return _DEFINITE[gender][case]
  if word in DER_WORDS:
    return word + _DER[gender][case]
  if word == 'ein' and gender == 'p':
    return ''
  ending = _EIN[gender][case]
  return ('eur' if word == 'euer' and ending else word) + ending


def adjective(stem: str, determiner_word: str, gender: str, case: int) -> str:
  """Inflects an attributive adjective after the given determiner.

  Weak after der-words, mixed after ein-words, strong with no article. teuer,
  dunkel drop their e; hoch becomes hoh-.
  """
  if stem == 'hoch':
    stem = 'hoh'
  elif re.search('(euer|auer|kel|bel)$', stem):
    stem = stem[:-2] + stem[-1]
  if determiner_word == 'der' or determiner_word in DER_WORDS:
    table = _WEAK
  elif determiner_word and not (determiner_word == 'ein' and gender == 'p'):
    table = _MIXED
  else:
    table = _STRONG
  return stem + table[gender][case]


def noun(
  singular: str,
  plural: str | None,
  gender: str,
  case: int,
  *,
  weak: bool = False,
  is_plural: bool = False,
) -> str:
  """The noun in its case: dative plural -n, weak masculines -(e)n, genitive -(e)s."""
  if is_plural:
    assert plural is not None
    return plural if case != DATIVE or plural[-1] in 'ns' else plural + 'n'
  if weak and case != NOMINATIVE:
    genitive_s = 's' if case == GENITIVE and singular == 'Name' else ''
    ending = 'n' if singular[-1] in 'er' else 'en'
    return singular + ending + genitive_s
  if case == GENITIVE and gender in 'mn':
    if re.search('[sßxz]$', singular) or singular in ('Freund', 'Sohn', 'Mann', 'Kind'):
      return singular + 'es'
    return singular + 's'
  return singular


def with_preposition(preposition: str, phrase: str) -> str:
  """Joins preposition and phrase, contracting in dem -> im, zu der -> zur."""
  first, space, rest = phrase.partition(' ')
  contracted = _CONTRACTIONS.get((preposition, first)) if space else None
  return f'{contracted} {rest}' if contracted else f'{preposition} {phrase}'


REFLEXIVE = ('mich', 'dich', 'sich', 'uns', 'euch', 'sich')
_DENTAL = re.compile('([dt]|[^aeiouäöülrhmn][mn])$')


@dataclasses.dataclass(frozen=True)
class Conjugation:
  """A verb's forms; finite forms come without the separable prefix."""

  infinitive: str
  prefix: str
  present: tuple[str, ...]  # six persons
  preterite: tuple[str, ...]
  participle: str
  auxiliary: str  # 'haben' or 'sein'
  zu_infinitive: str
  imperative: tuple[str, str]  # du, ihr


def _stem(infinitive: str) -> str:
  return infinitive[:-2] if infinitive.endswith('en') else infinitive[:-1]


def _present(infinitive: str, er_form: str) -> tuple[str, ...]:
  stem = _stem(infinitive)
  ich = stem + 'e'
  if infinitive.endswith('eln'):
    ich = stem[:-2] + 'le'
  if er_form.endswith('t'):
    base = er_form[:-1]
    if base == 'häl':
      base = 'hält'
    du = base + ('t' if base[-1] in 'sßxz' else 'st')
  else:
    du = er_form + 'st'
  ihr = stem + ('et' if _DENTAL.search(stem) else 't')
  return ich, du, er_form, infinitive, ihr, infinitive


def _preterite(ich_form: str) -> tuple[str, ...]:
  if ich_form.endswith('te'):
    return (
      ich_form,
      ich_form + 'st',
      ich_form,
      ich_form + 'n',
      ich_form + 't',
      ich_form + 'n',
    )
  dental = ich_form[-1] in 'dtsß'
  return (
    ich_form,
    ich_form + ('est' if dental else 'st'),
    ich_form,
    ich_form + 'en',
    ich_form + ('et' if ich_form[-1] in 'dt' else 't'),
    ich_form + 'en',
  )


def _imperative(infinitive: str, present: tuple[str, ...]) -> str:
  stem, base = _stem(infinitive), present[2][:-1]
  if infinitive.endswith('eln'):
    return stem[:-2] + 'le'
  if infinitive.endswith('ern'):
    return stem + 'e'
  umlaut = re.search('[äö]', base) and not re.search('[äö]', stem)
  if base != stem and not umlaut and not _DENTAL.search(stem):
    return base
  if present[2] == 'tritt' or base == 'trif':
    return base
  return (
    stem + 'e'
    if re.search('(gg|eis|ier|lan|lg|ös)$', stem) or _DENTAL.search(stem)
    else stem
  )


def strong(
  infinitive: str,
  er_present: str,
  preterite: str,
  participle: str,
  *,
  auxiliary: str = 'haben',
) -> Conjugation:
  """Conjugates from principal parts: 'an_rufen', 'ruft_an', 'rief_an', ..."""
  prefix, _, bare = infinitive.rpartition('_')
  present = _present(bare, er_present.split('_')[0])
  return Conjugation(
    infinitive=prefix + bare,
    prefix=prefix,
    present=present,
    preterite=_preterite(preterite.split('_')[0]),
    participle=participle,
    auxiliary=auxiliary,
    zu_infinitive=f'{prefix}zu{bare}' if prefix else f'zu {bare}',
    imperative=(_imperative(bare, present), present[4]),
  )


def weak(infinitive: str, *, auxiliary: str = 'haben') -> Conjugation:
  """Conjugates a weak verb; be-, ver-, er- and -ieren take no ge-."""
  prefix, _, bare = infinitive.rpartition('_')
  stem = _stem(bare)
  link = 'e' if _DENTAL.search(stem) else ''
  keeps = re.match('(be|ver|er|ent|zer|ge)(?!eil)', bare) or bare.endswith('ieren')
  ge = '' if keeps or bare.startswith('beeil') else 'ge'
  if bare in ('gehen', 'geben', 'beten'):
    ge = 'ge'
  return strong(
    infinitive,
    f'{stem}{link}t_{prefix}',
    f'{stem}{link}te_{prefix}',
    f'{prefix}{ge}{stem}{link}t',
    auxiliary=auxiliary,
  )


def irregular(
  infinitive: str, present: str, preterite: str, participle: str, auxiliary: str
) -> Conjugation:
  """A verb from its six present forms; only sein has an imperative here."""
  return Conjugation(
    infinitive,
    '',
    tuple(present.split()),
    _preterite(preterite),
    participle,
    auxiliary,
    f'zu {infinitive}',
    ('sei', 'seid') if infinitive == 'sein' else ('', ''),
  )


SEIN = dataclasses.replace(
  irregular('sein', 'bin bist ist sind seid sind', 'war', 'gewesen', 'sein'),
)
HABEN = irregular('haben', 'habe hast hat haben habt haben', 'hatte', 'gehabt', 'haben')
WERDEN = irregular(
  'werden', 'werde wirst wird werden werdet werden', 'wurde', 'geworden', 'sein'
)
WERDEN = dataclasses.replace(
  WERDEN, preterite=('wurde', 'wurdest', 'wurde', 'wurden', 'wurdet', 'wurden')
)
WISSEN = irregular(
  'wissen', 'weiß weißt weiß wissen wisst wissen', 'wusste', 'gewusst', 'haben'
)
MODALS = {
  'können': irregular(
    'können', 'kann kannst kann können könnt können', 'konnte', 'gekonnt', 'haben'
  ),
  'müssen': irregular(
    'müssen', 'muss musst muss müssen müsst müssen', 'musste', 'gemusst', 'haben'
  ),
  'dürfen': irregular(
    'dürfen', 'darf darfst darf dürfen dürft dürfen', 'durfte', 'gedurft', 'haben'
  ),
  'wollen': irregular(
    'wollen', 'will willst will wollen wollt wollen', 'wollte', 'gewollt', 'haben'
  ),
  'sollen': irregular(
    'sollen', 'soll sollst soll sollen sollt sollen', 'sollte', 'gesollt', 'haben'
  ),
  'möchten': irregular(
    'möchten',
    'möchte möchtest möchte möchten möchtet möchten',
    'wollte',
    'gewollt',
    'haben',
  ),
  'mögen': irregular(
    'mögen', 'mag magst mag mögen mögt mögen', 'mochte', 'gemocht', 'haben'
  ),
}
