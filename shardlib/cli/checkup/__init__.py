"""The checks of ``shardlib doctor``: of this machine, of the network, and of a session."""
