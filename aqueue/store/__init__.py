"""Everything that knows Redis: addresses, connections, keys, wire format, scripts, and one method per transition."""
