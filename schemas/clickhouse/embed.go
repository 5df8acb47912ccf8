// Package clickhouse holds the ClickHouse schema of Weft as numbered SQL files, for package warehouse to
// apply.
//
// NNNN_name.sql is applied once and never edited afterwards: a change is a new number. NNNN_name.view.sql
// holds what has no data of its own (views, dictionaries) and is applied again whenever its text has
// changed. In both, every statement may run twice, and at the same time, without harm (CREATE ... IF NOT
// EXISTS, CREATE OR REPLACE, ALTER ... IF [NOT] EXISTS), because there is no lock to hold: package
// warehouse tests that. ${database}, ${user} and ${password} are filled in when a file is applied.
//
// users.d holds the read-only analyst, for the server's own configuration directory of that name.
package clickhouse

import "embed"

// Files are the numbered SQL files.
//
//go:embed *.sql
var Files embed.FS

// AnalystUser is users.d/weft-analyst.xml: who may read the views and dictionaries, and nothing else.
//
//go:embed users.d/weft-analyst.xml
var AnalystUser []byte
