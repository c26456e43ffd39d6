from config.command_line import main

main()
