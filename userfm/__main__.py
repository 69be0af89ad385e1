"""`python -m userfm` is `userfm`."""

from userfm.cli import main

main()
