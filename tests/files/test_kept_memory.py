"""Freed memory that stays with the process, counted in pages that the system hands out anew."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, sys
import torch
from sdi_gs.files.kept_memory import keep_freed_memory
torch.set_num_threads(1)
if "keep" in sys.argv:
    print(keep_freed_memory())

def step():
    parts = [torch.ones(4 * 2**20) for _ in range(8)]  # 16 MiB each, freed together.

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(4):
    step()
before = pages()
for _ in range(4):
    step()
print((pages() - before) * resource.getpagesize())
"""


def told(*arguments: str, **environment: str) -> list[str]:
    command = [sys.executable, "-c", PAGES, *arguments]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=own | environment)
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_steps_use_the_same_pages_again() -> None:
    kept, again = told("keep")
    assert kept == "True"
    # Four steps of 128 MiB, most of which would be handed out anew.
    assert int(again) < 0.1 * 4 * 128 * 2**20


def test_a_choice_of_the_environment_stays() -> None:
    assert told("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
