"""What the processes of one machine share: folders, sockets, logs, memory, bounds."""
