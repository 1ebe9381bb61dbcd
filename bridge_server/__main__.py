"""``python -m bridge_server``: the command line."""

from bridge_server.cli import main

if __name__ == "__main__":
    main()
