"""llama.cpp's own server on a free port of this machine: `python llama_cpp_server.py FILE`, by a Python with xllamacpp.

Prints its address when it answers, and ends when its standard input does.
"""

import os
import sys


def main() -> None:
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = sys.argv[1]
    settings.n_ctx, settings.n_parallel, settings.verbosity = 4096, 1, -1
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    cores = len(os.sched_getaffinity(0))
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = cores
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
