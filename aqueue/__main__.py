"""`python -m aqueue`: the command line, where its script is not on the path."""

from aqueue.ops.cli import app

if __name__ == "__main__":
    app(prog_name="python -m aqueue")
