"""What people use to look after their queues: the `aqueue` command line."""
