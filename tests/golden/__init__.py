"""Golden digests: what runs with portable kernels give, written down for the pinned torch.

python -m tests.golden                              compute all and compare
python -m tests.golden --emulate Haswell EPYC --keep FILE
                                                    the same on processors that qemu emulates: an
                                                    hour; the same command goes on where it stopped
python -m tests.golden --keep FILE --page PAGE.md   say what the file has
python -m tests.golden --write                      write them down, after torch was exchanged
"""
