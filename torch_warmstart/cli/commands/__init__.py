"""What the commands do, a module each; each takes parsed options and returns an `Answer`."""
