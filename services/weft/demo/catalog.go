package demo

import (
	"encoding/json"
	"fmt"
)

// Currency of everything the shop sells.
const Currency = "EUR"

// Product is one thing on the shelf. Money is in cents.
type Product struct {
	ID, Name, Variant, Category string
	Cents                       int64
}

// Line is a product in a cart or order.
type Line struct {
	Product
	Quantity int64
}

// total is what lines cost, in cents.
func total(lines []Line) int64 {
	var n int64
	for _, l := range lines {
		n += l.Cents * l.Quantity
	}
	return n
}

// Money writes cents as an amount, such as 12.90.
func Money(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "-", -cents
	}
	return fmt.Sprintf("%s%d.%02d", sign, cents/100, cents%100)
}

// amount is cents as a JSON number, digit for digit.
func amount(cents int64) json.Number { return json.Number(Money(cents)) }

// catalog is what the shop sells.
func catalog() []Product {
	return []Product{
		{"tea-204", "First Flush Darjeeling", "100 g", "Tea", 1290},
		{"tea-117", "Smoked Lapsang Souchong", "250 g", "Tea", 1950},
		{"tea-031", "Peppermint, loose", "50 g", "Tea", 490},
		{"pot-017", "Stoneware teapot", "", "Kitchen", 4600},
		{"pot-022", "Cast-iron kettle", "1.2 l", "Kitchen", 8900},
		{"cup-008", "Porcelain cup, hand-thrown", "blue", "Kitchen", 1850},
		{"cup-009", "Porcelain cup, hand-thrown", "white", "Kitchen", 1850},
		{"cof-301", "Espresso roast Sidamo", "500 g", "Coffee", 1499},
		{"cof-302", "Filter roast Huehuetenango", "250 g", "Coffee", 1199},
		{"mil-044", "Hand mill", "", "Coffee", 12900},
		{"fil-001", "Paper filters", "100 pieces", "Coffee", 325},
		{"hon-012", "Linden honey", "500 g", "Pantry", 995},
		{"cho-070", "Dark chocolate 70 %", "80 g", "Pantry", 379},
		{"jam-015", "Sour cherry jam", "340 g", "Pantry", 645},
		{"bok-101", "The Book of Tea", "hardback", "Books", 2400},
		{"tow-005", "Linen tea towel", "natural", "Kitchen", 1590},
	}
}

func firstNames() []string {
	return []string{
		"Anna", "Jan", "Maria", "Piotr", "Zofia", "Tomasz", "Ewa", "Pawel", "Julia", "Adam", "Lena", "Marek", "Ada", "Ola",
		"Karol", "Nina", "Filip", "Iga", "Oskar", "Hanna",
	}
}

func lastNames() []string {
	return []string{
		"nowak", "kowalska", "wisniewski", "wojcik", "kaminska", "lewandowski", "zielinska", "szymanski", "dabrowska",
		"kozlowski", "mazur", "krawczyk", "kaczmarek", "grabowska", "pawlak", "michalska",
	}
}

func tills() []string { return []string{"Krakow 1", "Krakow 2", "Warszawa 1", "Gdansk 1"} }

// properties are those of a product in an event; the cart's id is left out if empty.
func (l Line) properties(cart string) map[string]any {
	p := map[string]any{
		"product_id": l.ID, "sku": l.ID, "name": l.Name, "category": l.Category, "price": amount(l.Cents),
		"quantity": l.Quantity, "currency": Currency, "url": "https://shop.example.com/p/" + l.ID,
		"image_url": "https://shop.example.com/i/" + l.ID + ".jpg",
	}
	if l.Variant != "" {
		p["variant"] = l.Variant
	}
	if cart != "" {
		p["cart_id"] = cart
	}
	return p
}

func products(lines []Line) []map[string]any {
	list := make([]map[string]any, len(lines))
	for i, l := range lines {
		list[i] = l.properties("")
		delete(list[i], "currency")
	}
	return list
}
