"""`real` mode: charts from Chart-IMG, with several accounts and a shared daily quota."""
