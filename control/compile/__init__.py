"""Objects -> the resources each workload needs.  Pure and total; `snapshot.compile_snapshot` is the door."""
