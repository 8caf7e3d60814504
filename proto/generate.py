"""Write the Python code of the messages and stubs of proto/ into src/ (`make proto`); a test compares.

proto/generate.py        into src/
proto/generate.py DIR    into a directory
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = ("talon/v1/talon.proto",)


def generate(into: Path) -> int:
    """Write talon/v1/talon_pb2.py, .pyi and talon_pb2_grpc.py below `into`; -> the compiler's exit code."""
    outputs = [f"--{kind}_out={into}" for kind in ("python", "pyi", "grpc_python")]
    return subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", *outputs, *FILES], check=False).returncode


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "src"))
