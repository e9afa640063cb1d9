"""The soak: a mesh at full load with everything it carries, and then the books.   `make soak`, `python -m benchmarks.soak`

__main__.py  starts the mesh, watches memory, prints the verdict        app.py     what answers; counts what reached it
load.py      every kind of traffic on one reactor                       books.py   do client, proxies and app agree?   pure
"""
