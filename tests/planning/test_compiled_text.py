"""Text in the compiler's own form, small enough to count by hand."""

import pytest

from rest_jax.planning import compiled_text

TEXT = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  ROOT %sum = f32[] add(%a, %b), backend_config={"estimated_cycles":"999"}
}

%inner_cond (p: (s32[])) -> pred[] {
  %five = s32[]{:T(128)} constant(5)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %five), direction=LT
}

%inner_body (p: (s32[])) -> (s32[]) {
  %x = bf16[8,128]{1,0:T(8,128)} fusion(%q), calls=%fused, backend_config={"estimated_cycles":"10"}
  %g = bf16[64,128]{1,0} all-gather(%x), replica_groups=[2,8]<=[16], dimensions={0}
  ROOT %t = (s32[]) tuple(%i)
}

%fused (q: f32[]) -> f32[] {
  ROOT %m = f32[] multiply(%q, %q), backend_config={"estimated_cycles":"777"}
}

%seldom (p: f32[]) -> f32[] {
  ROOT %s = f32[] negate(%p), backend_config={"estimated_cycles":"80"}
}

%outer_cond (p: (s32[])) -> pred[] {
  ROOT %r = pred[] and(%u, %v)
}

%outer_body (p: (s32[])) -> (s32[]) {
  %w = (s32[]) while(%p), condition=%inner_cond, body=%inner_body
  %c = f32[] conditional(%k, %l, %l), branch_computations={%seldom, %seldom}
  ROOT %n = f32[] negate(%p), backend_config={"estimated_cycles":"7"}
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %r = (f32[16]{0}, f32[4]{0}) all-reduce(%y, %z), replica_groups={{0,1,2,3}}, to_apply=%add
  %s = (f32[8]{0}, f32[32]{0}) all-gather-start(%y), replica_groups=mesh['a'=2,'b'=4] {'b'}
  %o = (s32[]) while(%p), condition=%CONDITION, body=%outer_body
  ROOT %e = f32[4] copy(%p), backend_config={"estimated_cycles":"1000"}
}
"""  # noqa: E501, the compiler's lines are long


def collectives(text):
  return {
    (one.kind, one.group): (one.times, one.bytes)
    for one in compiled_text.read(text).collectives
  }


def test_a_loop_of_known_length_counts_in_full():
  found = compiled_text.read(TEXT.replace('%CONDITION', '%inner_cond'))
  # Five turns of (5 x 10 + 2 x 80 + 7), and the entry; of each line once 10 + 80 + 7.
  assert found.cycles == 5 * (5 * 10 + 2 * 80 + 7) + 1000
  assert found.cycles_once == 10 + 80 + 7 + 1000
  assert found.loops_of_unknown_length == 0


def test_of_a_loop_of_unknown_length_one_turn_counts():
  text = TEXT.replace('%CONDITION', '%outer_cond')
  whole, found = compiled_text.read(text), compiled_text.read(text, one_turn=True)
  assert whole.cycles == found.cycles + 1000
  assert found.cycles == 5 * 10 + 2 * 80 + 7  # the entry is not part of a turn
  assert found.cycles_once == 10 + 80 + 7 + 1000
  assert found.loops_of_unknown_length == 1


def test_a_branch_counts_as_often_as_it_is_taken():
  text = TEXT.replace('%CONDITION', '%outer_cond')
  assert (
    compiled_text.read(text, one_turn=True, branch_share=1 / 8).cycles
    == 5 * 10 + 2 * 10 + 7
  )


def test_collectives_count_as_often_as_they_run():
  assert collectives(TEXT.replace('%CONDITION', '%inner_cond')) == {
    ('all-reduce', 4): (1, (16 + 4) * 4),
    ('all-gather', 4): (1, 32 * 4),  # of the start's pair the result
    ('all-gather', 8): (25, 25 * 64 * 128 * 2),
  }


@pytest.mark.parametrize(
  'kind, sent',
  [
    ('all-reduce', 2 * 800 * 3 / 4),
    ('all-gather', 800 * 3 / 4),
    ('reduce-scatter', 800 * 3 / 4),
    ('collective-permute', 800),
  ],
)
def test_bytes_that_a_ring_sends(kind, sent):
  assert compiled_text.Collective(kind, 4, 1, 800).sent_bytes == sent


def test_a_fused_reduce_scatter_is_one():
  text = TEXT.replace('%CONDITION', '%inner_cond').replace(
    '%fused (q: f32[]) -> f32[] {',
    '%fused (q: f32[]) -> f32[] {\n'
    '  %r = f32[32] all-reduce(%q), replica_groups=[4,4]<=[16], to_apply=%add',
  )
  text = text.replace('%fused', '%all-reduce-scatter.1')
  assert collectives(text)['reduce-scatter', 4] == (25, 25 * 32 * 4)


def test_shapes():
  assert compiled_text.shape_bytes('(f32[8,128]{1,0}, bf16[4], pred[], s4[6])') == [
    4096,
    8,
    1,
    3,
  ]


def test_no_text_says_nothing():
  assert compiled_text.read('') == compiled_text.Text((), 0, 0, 0)
  assert compiled_text.read('').repetition == 1.0
