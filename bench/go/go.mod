module strands-bench

go 1.21
