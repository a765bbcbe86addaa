"""Our HTTP/1.1 server and pooled client over httptools: the lowest room of the shell."""
