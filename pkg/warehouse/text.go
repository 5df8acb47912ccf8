package warehouse

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
)

// timeText is how ClickHouse prints a DateTime64(3).
const timeText = "2006-01-02 15:04:05.000"

// text is a value as ClickHouse prints it; false: NULL.
func text(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case []byte:
		return string(v), true
	case bool:
		return strconv.FormatBool(v), true
	case uint16, uint32, uint64:
		return fmt.Sprint(v), true
	case uuid.UUID:
		return v.String(), true
	case time.Time:
		return v.UTC().Format(timeText), true
	case *time.Time:
		if v == nil {
			return "", false
		}
		return text(*v)
	case decimal.Decimal:
		return v.String(), true
	case *decimal.Decimal:
		if v == nil {
			return "", false
		}
		return text(*v)
	case []string:
		return "[" + strings.Join(quotedAll(v), ",") + "]", true
	case map[string]decimal.Decimal:
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, quotedAll([]string{k})[0]+":"+v[k].String())
		}
		return "{" + strings.Join(parts, ",") + "}", true
	}
	panic(fmt.Sprintf("warehouse: no column holds a %T", value))
}

func quotedAll(vs []string) []string {
	out := make([]string, len(vs))
	for i, v := range vs {
		out[i] = "'" + sqlEscaper.Replace(v) + "'"
	}
	return out
}
