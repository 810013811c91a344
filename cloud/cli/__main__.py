"""`python -m cloud.cli`: the `fleet` command where no script is installed."""

from cloud.cli.main import run

run()
