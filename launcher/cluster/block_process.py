"""The process that has blocks of records prepared on Ray. It holds nothing that Ray's workers would look for."""

import sys
from multiprocessing.connection import Connection

from launcher.cluster.block_tasks import serve

if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
