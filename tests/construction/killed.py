"""Constructs and is killed, again and again: python -m tests.construction.killed SECTION_JSON NUM_KILLS SEED"""

import json
import os
import random
import signal
import sys
import time

from sft.config_construction import ConstructConfig
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import Endpoint
from tests.construction.teaching import run


def start(given: ConstructConfig) -> int:
    if child := os.fork():
        return child
    os._exit(0 if run(given).error is None else 1)


if __name__ == "__main__":
    config = ConstructConfig.model_validate(json.loads(sys.argv[1]))
    draw = random.Random(int(sys.argv[3]))
    EndpointClient(Endpoint(config.teacher.endpoint, "tiny")).check()  # imports the rest
    for _ in range(int(sys.argv[2])):
        pid = start(config)
        time.sleep(draw.uniform(0.02, 0.3))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert os.waitpid(start(config), 0)[1] == 0
