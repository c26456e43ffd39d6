"""Share a machine between processes: folders, sockets, logs, memory, fair shares."""
