"""The port to processes: who is started, who is told to stop, and who must be gone.

controller            the only one that speaks to the network
└── reaper            one thread; forks the workers, buries them, outlives the controller by milliseconds
    ├── worker        a session of its own; whatever its tasks start stays below it or below the reaper
    └── worker

Two ties hold each link of this chain: a socket that reads as ended when the other side is gone, and a signal that
the kernel sends to the child of a dead parent. Both the reaper and the controller adopt orphans, so that a process
that left its session is still found when its turn comes.
"""
