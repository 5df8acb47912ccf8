package main

import "github.com/spf13/cobra"

// commands lists every command; each is a file of its own.
func commands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newDemoCommand(a),
		newUpCommand(a),

		newCollectorCommand(a),
		newStitcherCommand(a),
		newBuilderCommand(a),
		newActivatorCommand(a),
		newWriterCommand(a),

		newAuditCommand(a),
		newCheckCommand(a),
		newConfigCommand(),
		newIdentityCommand(a),
		newJourneyCommand(a),
		newPlanCommand(a),
		newRebuildCommand(a),
		newRejectedCommand(a),
		newReplayCommand(a),
		newSourcesCommand(a),
		newTailCommand(a),
		newSpoolCommand(a),
		newTopicsCommand(a),
		newVersionCommand(),

		newHealthcheckCommand(a),
		newGuardCommand(),
		newClickHouseCommand(),
	}
}
