module stonelog/compat

go 1.25
