"""One script at a time: seed the whole store, call one method of the client, compare the whole store."""
