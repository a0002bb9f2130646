"""`python -m penchant.cli`: the command line where its script is not on the path."""

from penchant.cli import main

main()
