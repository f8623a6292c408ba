"""One of several processes that share blocks by the real protocol, in virtual time.

  python -m tests.benchmarks.claiming_hosts PORT COUNT INDEX JSON

The hosts go through their claims in the order of their own virtual clocks: before each
step all say theirs, and the one that is furthest behind takes the next block from the
real service. Prints as JSON the claims of this host: [[seconds, host, block], ...].
"""

import json
import sys

from rest_jax.training import hosts


def main(port, count, index, work_s, speeds, start_s):
  hosts.join(
    coordinator_address=f'127.0.0.1:{port}', process_count=count, process_index=index
  )
  mine = hosts.share('test/blocks', len(work_s))
  now, claims = start_s, []
  while True:
    clocks = [float(text) for text in hosts.gather('clock', repr(now))]
    turn = min(range(count), key=lambda host: (clocks[host], host))
    if clocks[turn] == float('inf'):
      break
    if turn != index:
      continue
    block = next(mine, None)
    if block is None:
      now = float('inf')
      continue
    claims.append([now, index, block])
    now += work_s[block] / speeds[index]
  print(json.dumps(claims), flush=True)
  hosts.part()


if __name__ == '__main__':
  main(*map(int, sys.argv[1:4]), **json.loads(sys.argv[4]))
