"""Several processes that are one proxy: `--workers N`.

                    parent                                              worker 0 .. N-1
    admin, identity, configuration          one socketpair each         both sides of the data path
    binds every listener, keeps the sockets --Start, Listen(fds), ...-> accepts on its own socket of each
    adds counters up at a scrape            <-Ready, Measured, ...----- counts
    starts a worker again when it dies                                  dies with the parent (PR_SET_PDEATHSIG)

Python runs one thread of itself at a time, so a second core needs a second process.  Workers are exec'd and not forked (an
event loop, its sockets and TLS state do not survive that), and the parent alone talks to the control plane.

Each worker has its own pools, EWMA, splits and breakers, and 1/N of each retry budget's floor.  What they share is the
kernel's: a listening socket for each worker and address, bound with SO_REUSEPORT, so that the kernel deals connections out
by hash (see sockets.py for why this and not a shared accept).
"""
