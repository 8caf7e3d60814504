"""`python -m talon` is `talon`."""

from talon.cli.main import main

if __name__ == "__main__":
    main()
