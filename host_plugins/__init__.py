"""The bridge's parts inside editors, and `link`, which they all speak to the server with."""
