"""What holds for all tests."""

import signal

# A shell starts a background job with SIGINT ignored, and children inherit that: tests that press Ctrl-C in a program
# they start would wait for ever. A Python handler here becomes the default action in every child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
