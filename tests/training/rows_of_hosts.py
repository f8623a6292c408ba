"""One of several processes of one mesh; prints as JSON its rows of a batch of 8.

PORT, COUNT and INDEX are the arguments of `python -m tests.training.rows_of_hosts`.
"""

import json
import sys

from rest_jax.training import hosts
from rest_jax.training import mesh as mesh_lib


def main(port, count, index):
  hosts.join(
    coordinator_address=f'127.0.0.1:{port}', process_count=count, process_index=index
  )
  print(json.dumps(mesh_lib.host_rows(mesh_lib.make_mesh(), 8).tolist()), flush=True)
  hosts.part()


if __name__ == '__main__':
  main(*map(int, sys.argv[1:4]))
