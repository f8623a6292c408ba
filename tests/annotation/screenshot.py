"""Makes docs/annotation.png, and looks at the page's other views.

    python -m tests.annotation.screenshot docs/annotation.png [VIEW [WIDTH HEIGHT]]

Needs what `test_browser.py` needs.
"""

import pathlib
import sys
import tempfile
import threading

import numpy as np
from playwright import sync_api

from rest_jax.annotation import database, guard, items, server
from rest_jax.data import group_store
from tests.annotation import study, test_browser

SOURCES = {
  'Weil der Zug verspätet war, nahm die Ärztin am Montag das Fahrrad.': (
    'Because the train was late, the doctor took the bicycle on Monday.',
    'The doctor took the bicycle on Monday because the train delayed was.',
    'The train was late on Monday.',
  ),
  'Zwei Kinder spielen vor dem alten Haus mit einem roten Ball.': (
    'Two children are playing with a red ball in front of the old house.',
    'Two children play a red ball before the house.',
    'Two children are sitting in the old house.',
  ),
}


def systems(directory):
  """Three systems with a candidate of each source."""
  made = []
  for place in range(3):
    groups = [
      group_store.Group(
        source_id=f'test/{index:08d}',
        source=source,
        source_tokens=np.array([5, 1], np.int32),
        reference=None,
        texts=(candidates[place],),
        tokens=(np.array([7, 1], np.int32),),
        token_log_probs=None,
        finished=np.ones(1, bool),
        origins=('model',),
      )
      for index, (source, candidates) in enumerate(SOURCES.items())
    ]
    name = f'evaluate_{place}'
    group_store.write_group_set(directory / name, groups)
    made.append(items.System(name, directory / name))
  return made


def main(path, view='side_by_side', width=1180, height=560):
  """Signs in, rates once, and takes the picture."""
  with tempfile.TemporaryDirectory() as folder:
    options = {'num_sources': None, 'num_candidates': 1, 'num_shared': 1, 'seed': 0}
    drawn = items.choose(systems(pathlib.Path(folder)), **options)
    kept = database.create(pathlib.Path(folder) / 'ratings.sqlite', drawn, {'seed': 0})
    rules = guard.access('127.0.0.1', None, study='picture')
    app = server.make_app(study.study(kept, view), rules)
    bound, port = threading.Event(), []

    def ready(number):
      port.append(number)
      bound.set()

    options = {'host': '127.0.0.1', 'port': 0, 'ready': ready}
    threading.Thread(
      target=server.serve, args=(app,), kwargs=options, daemon=True
    ).start()
    bound.wait()
    with sync_api.sync_playwright() as playwright:
      browser = test_browser.launch(playwright)
      page = browser.new_page(viewport={'width': int(width), 'height': int(height)})
      page.goto(f'http://127.0.0.1:{port[0]}/')
      page.wait_for_selector('#name:focus')
      page.keyboard.type('anna')
      page.keyboard.press('Enter')
      page.wait_for_selector('.candidate.current')
      if view == 'side_by_side':
        page.keyboard.press('5')
        page.wait_for_selector('[aria-pressed=true]')
      page.screenshot(path=path)
      browser.close()


if __name__ == '__main__':
  main(*sys.argv[1:])
