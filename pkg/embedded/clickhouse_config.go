package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"
)

// The layout of ClickHouse's data directory.
const (
	dataDir    = "data"
	usersDir   = "users.d" // ClickHouse merges what is in it into users.xml
	configFile = "config.xml"
	usersFile  = "users.xml"
)

// configXML is a server's configuration where clickhouse-local, which libchdb runs, would have its own: small thread
// pools, and a default database that lives in memory. %s is the data directory.
const configXML = `<clickhouse>
    <logger><console>1</console><level>warning</level></logger>
    <users_config>` + usersFile + `</users_config>
    <default_profile>default</default_profile>
    <default_database></default_database>
    <database>default</database>
    <max_connections>1024</max_connections>
    <max_concurrent_queries>200</max_concurrent_queries>
    <mark_cache_size>268435456</mark_cache_size>
    <background_pool_size>8</background_pool_size>
    <background_common_pool_size>4</background_common_pool_size>
    <background_schedule_pool_size>64</background_schedule_pool_size>
    <background_buffer_flush_schedule_pool_size>4</background_buffer_flush_schedule_pool_size>
    <background_message_broker_schedule_pool_size>4</background_message_broker_schedule_pool_size>
</clickhouse>
`

// usersXML lets the user default in without a password, from this machine only. The settings are a server's defaults
// where clickhouse-local has others.
const usersXML = `<clickhouse>
    <profiles>
        <default>
            <implicit_select>0</implicit_select>
            <allow_introspection_functions>0</allow_introspection_functions>
            <storage_file_read_method>pread</storage_file_read_method>
        </default>
        <readonly><readonly>1</readonly></readonly>
    </profiles>
    <users>
        <default>
            <password></password>
            <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
        </default>
    </users>
    <quotas><default/></quotas>
</clickhouse>
`

// prepareClickHouse writes the configuration into dir and seeds the databases, and returns the path of the former and of
// the data.
func prepareClickHouse(dir string) (configPath, data string, err error) {
	data = filepath.Join(dir, dataDir)
	if err := os.MkdirAll(filepath.Join(dir, usersDir), 0o700); err != nil {
		return "", "", err
	}
	configPath = filepath.Join(dir, configFile)
	err = errors.Join(
		os.WriteFile(configPath, []byte(configXML), 0o600),
		os.WriteFile(filepath.Join(dir, usersFile), []byte(usersXML), 0o600),
		seedDatabases(data),
	)
	return configPath, data, err
}

// seedDatabases makes system and default databases on disk before the first start, as a server has them. Otherwise they
// would be in memory, or laid over files.
func seedDatabases(data string) error {
	metadata := filepath.Join(data, "metadata")
	if err := os.MkdirAll(metadata, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"system", "default"} {
		file := filepath.Join(metadata, name+".sql")
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return err
			}
			continue
		}
		id := uuid.NewString()
		// ClickHouse spreads the objects of its Atomic engine over folders named by three digits.
		store := filepath.Join("store", id[:3], id)
		if err := os.MkdirAll(filepath.Join(data, store), 0o700); err != nil {
			return err
		}
		link := filepath.Join(metadata, name)
		if err := os.Symlink(filepath.Join("..", store), link); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		text := fmt.Sprintf("ATTACH DATABASE _ UUID '%s'\nENGINE = Atomic\n", id)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
