"""What deploy/ ships, run or read by the programs it is written for."""
