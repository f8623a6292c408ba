"""The host's side of the decoder loop, against devices that are made up."""

import numpy as np
import pytest

from rest_jax.sampling import decoder, flow, tickets

LENGTHS = (4, 8, 12)


def _drive(lengths, *, batch, slots, share, shards, num_samples, seed=0):
  """Runs a flow with candidates of known lengths.

  Args:
    lengths: [sources, num_samples], tokens of each candidate with EOS; more than
      the limit of 12 means that it never ends.

  Returns:
    What completed, the widths, and how many turns put nothing in.
  """
  rng = np.random.default_rng(seed)
  sources = [np.ones(rng.integers(1, 9), np.int32) for _ in lengths]
  names = [f's{row}' for row in range(len(lengths))]
  driven = flow.Flow(
    sources,
    names,
    num_samples,
    batch=batch,
    slots=slots,
    share=share,
    shards=shards,
    source_lengths=(4, 8),
    lengths=LENGTHS,
  )
  by_words = {
    tuple(words): row for row, words in enumerate(decoder.draws.source_words(names))
  }
  places = (batch, slots, share)
  held = {
    'tokens': np.zeros((*places, 12), np.int32),
    'num_tokens': np.zeros(places, np.int32),
  }
  free = np.ones(batch, bool)
  complete, widths, drains = {}, [batch], 0

  def put(incoming, lanes, length):
    """Fills lanes as the decoder would, all the way to the end of each candidate."""
    for i, lane in enumerate(lanes):
      if lane is None:
        assert (incoming.indices[i] == -1).all()
        continue
      assert free[lane]  # a lane at work is left alone
      held['tokens'][lane], held['num_tokens'][lane] = 0, 0
      for slot, one in zip(*np.nonzero(incoming.indices[i] >= 0), strict=True):
        row = by_words[tuple(incoming.words[i])]
        index = incoming.indices[i, slot, one]
        tokens = _tokens(row, index, lengths[row][index])
        known = incoming.num_known[i, slot, one]
        if known:  # what was drawn before comes back
          np.testing.assert_array_equal(
            incoming.tokens[i, slot, one, :known], tokens[:known]
          )
        drawn = min(len(tokens), length)
        assert known < drawn
        held['tokens'][lane, slot, one, :drawn] = tokens[:drawn]
        held['num_tokens'][lane, slot, one] = drawn
      free[lane] = (incoming.indices[i] == -1).all()

  for _ in range(10_000):
    if not driven.goes_on():
      return complete, widths, drains
    turn = driven.turn(free)
    size = len(free) // shards
    if turn.incoming is not None:
      lanes = [
        shard * size + place if place < size else None
        for shard, row in enumerate(turn.incoming.place.reshape(shards, -1))
        for place in row
      ]
    else:
      lanes = list(range(len(free)))
      assert all(free[i] for i in lanes if turn.leaving[i] is not None)
    ended = decoder.Ended(
      tokens=held['tokens'][[lane or 0 for lane in lanes]],
      log_probs=held['tokens'][[lane or 0 for lane in lanes]].astype(np.float32),
      num_tokens=held['num_tokens'][[lane or 0 for lane in lanes]],
    )
    if turn.incoming is not None:
      assert turn.keep is None
      assert (turn.incoming.indices >= 0).any()  # nothing is encoded for nothing
      put(turn.incoming, lanes, turn.length)
    if turn.keep is not None:
      kept = [
        shard * size + place
        for shard, row in enumerate(turn.keep.reshape(shards, -1))
        for place in row
      ]
      assert free[np.setdiff1d(np.arange(len(free)), kept)].all()
      free, held = free[kept], {name: x[kept] for name, x in held.items()}
      widths.append(len(free))
    drains += turn.incoming is None
    np.testing.assert_array_equal(turn.free, free)
    # Devices are not asked for what is so already.
    assert turn.enough == 0 or free.sum() < turn.enough
    while free.sum() < turn.enough:  # one lane ends after the other
      busy = np.flatnonzero(~free)
      assert busy.size, 'it waits for lanes that nobody has'
      free[rng.choice(busy)] = True
    for row, drawn in driven.finish(turn.leaving, ended):
      assert row not in complete
      complete[row] = drawn
  raise AssertionError('the flow does not end')


def _tokens(row, index, length):
  tokens = 2 + (np.arange(length) * 7 + row * 3 + index) % 11
  tokens[-1] = decoder.EOS_ID
  return tokens


@pytest.mark.parametrize(
  ('batch', 'slots', 'share', 'shards', 'num_samples'),
  [
    (1, 1, 1, 1, 1),
    (4, 1, 3, 1, 3),
    (64, 1, 4, 1, 7),
    (64, 2, 2, 4, 9),
    (8, 3, 1, 8, 5),
  ],
)
def test_every_candidate_completes_once_and_in_order(
  batch, slots, share, shards, num_samples
):
  rng = np.random.default_rng(1)
  lengths = rng.integers(1, 15, (50, num_samples))
  complete, widths, drains = _drive(
    lengths,
    batch=batch,
    slots=slots,
    share=share,
    shards=shards,
    num_samples=num_samples,
  )
  assert sorted(complete) == list(range(50))
  for row, drawn in complete.items():
    assert len(drawn) == num_samples
    for index, candidate in enumerate(drawn):
      expected = _tokens(row, index, lengths[row, index])[:12]
      np.testing.assert_array_equal(candidate.tokens, expected)
      np.testing.assert_array_equal(candidate.log_probs, expected)
  if batch // shards >= 16:  # given up at the end
    assert widths[-1] <= batch // 4
  # All that has ended leaves together where nothing waits.
  assert drains <= 4 * len(widths) * shards


def test_tickets_come_by_length_and_outgrown_candidates_wait_for_a_longer_cache():
  queue = tickets.Queue([8, 2, 5, 3], 8, slots=1, share=8, lanes=1, lengths=LENGTHS)
  order = [(t.row, t.length, list(t.indices)) for t in iter_pop(queue)]

  def part(start, stop):
    return [*range(start, stop)]

  # 2, 3, 5 and 8 source tokens: 2, 3, 6 and 10 expected.
  assert order == [
    (1, 4, part(0, 8)),
    # The last sources are cut finer and finer: the lanes end together.
    *((3, 4, part(i, i + 4)) for i in (0, 4)),
    *((2, 8, part(i, i + 2)) for i in (0, 2, 4, 6)),
    *((0, 12, part(i, i + 1)) for i in range(8)),
  ]
  start = tickets.Drawn(np.full(4, 5, np.int32), np.zeros(4, np.float32))
  queue.put_back(1, {2: start, 0: start})
  ticket = queue.pop()
  assert (ticket.row, ticket.length) == (1, 8)
  assert list(ticket.places()) == [(0, 0, 0), (0, 1, 2)]
  assert set(ticket.known) == {0, 2}


def test_each_lane_gets_one_of_the_fine_tickets_and_no_more():
  queue = tickets.Queue([9] * 100, 12, slots=2, share=6, lanes=10, lengths=(16,))
  found = list(iter_pop(queue))
  sizes = [len(t.indices) for t in found]
  # Shares of 6, 3, 2 and 1 in each of two slots: 1, 2, 3 and 6 tickets of a source.
  assert sizes == [12] * 89 + [6] * 10 + [4] * 12 + [2] * 12
  # The second half of a source, three candidates for each slot.
  assert list(found[90].places()) == [
    *((0, place, 6 + place) for place in range(3)),
    *((1, place, 9 + place) for place in range(3)),
  ]


def iter_pop(queue):
  while queue:
    yield queue.pop()


@pytest.mark.parametrize(
  ('lanes', 'share', 'taken'), [(128, 25, 8), (128, 8, 16), (128, 1, 16), (4, 1, 1)]
)
def test_short_work_takes_more_lanes_a_turn(lanes, share, taken):
  assert flow.lanes_of_turn(lanes, share) == taken


def test_lengths_of_the_encoder_are_four_to_a_doubling():
  lengths = flow.encoder_lengths(130)
  assert lengths == (
    *(8, 12, 16, 20, 24, 28, 32),
    *(40, 48, 56, 64, 80, 96, 112, 128, 130),
  )
  assert set(decoder.cache_lengths(130)) <= set(lengths)  # lanes hold what is encoded
  assert flow.encoder_lengths(5) == (5,)


@pytest.mark.parametrize(
  ('share', 'encoded', 'room'),
  [(8, [8, 8, 12, 20], [16, 16, 24, 24]), (9, [4, 16, 16, 24], [4, 16, 16, 24])],
)
def test_fine_work_is_padded_finer_and_lanes_grow_for_source_and_cache_at_once(
  share, encoded, room
):
  sizes = [3, 8, 12, 18]
  driven = flow.Flow(
    [np.ones(size, np.int32) for size in sizes],
    [f's{size}' for size in sizes],
    share,
    batch=1,
    slots=1,
    share=share,
    shards=1,
    source_lengths=(4, 16, 24),
    lengths=(14, 24),  # for two sources each
  )
  seen = {}
  tokens = np.full((1, 1, share, 24), decoder.EOS_ID)
  ended = decoder.Ended(tokens, tokens.astype(np.float32), np.ones((1, 1, share), int))
  while driven.goes_on():
    turn = driven.turn(np.ones(1, bool))
    if turn.incoming is not None:
      inputs = turn.incoming.encoder_input_tokens
      seen[np.count_nonzero(inputs)] = inputs.shape[1], turn.source_length
    list(driven.finish(turn.leaving, ended))
  assert seen == dict(zip(sizes, zip(encoded, room, strict=True), strict=True))


@pytest.mark.parametrize(
  ('share', 'num_sources', 'widths'),
  [(8, 192, [64, 32, 8]), (9, 192, [64, 16]), (1, 191, [64, 16])],
)
def test_fine_work_gives_up_half_of_the_lanes_first(share, num_sources, widths):
  lengths = np.random.default_rng(1).integers(1, 13, (num_sources, share))
  found = _drive(lengths, batch=64, slots=1, share=share, shards=1, num_samples=share)[
    1
  ]
  assert found == widths
