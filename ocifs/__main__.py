"""`python -m ocifs`: the same as the `ocifs` command."""

from ocifs.cli.main import main

main()
