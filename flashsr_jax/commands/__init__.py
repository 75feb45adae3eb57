"""The words of the `flashsr` command, one file each: flags and body."""
