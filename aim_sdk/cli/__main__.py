from aim_sdk.cli import main

main()
