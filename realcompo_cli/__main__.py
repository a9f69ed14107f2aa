"""`python -m realcompo_cli` is the command `realcompo`."""

from realcompo_cli.main import app

app(prog_name="realcompo")
