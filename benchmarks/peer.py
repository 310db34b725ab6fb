"""Another program as a process that speaks JSON lines: one request a line, one answer a line.

It is idle while cllm is measured, so that all take turns in one run.
"""

import json
import subprocess
import sys


class Peer:
    """`about` is what it said of itself before any request."""

    def __init__(self, name, script, *arguments):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, *map(str, (script, *arguments))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self.about = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the {self.name} process ended; its messages are above")
        answer = json.loads(line)
        if "error" in answer:
            sys.exit(f"{self.name}: {answer['error']}")
        return answer

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
