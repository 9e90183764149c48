"""`real` mode: Chart-IMG, its accounts, its quota, its answers."""
